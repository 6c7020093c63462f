"""The URLs of a service with views that use the authentication class of the app, or a subclass of this class."""

from typing import Any

from django.urls import path
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import serializers
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from instaccess.service import InstAccessAuthentication


class CourseSerializer(serializers.Serializer):
    name = serializers.CharField()


class OwnAuthentication(InstAccessAuthentication):
    """A subclass without an OpenAPI extension of its own."""


class DescribedAuthentication(InstAccessAuthentication):
    """A subclass for which the project defines an OpenAPI extension."""


class DescribedScheme(OpenApiAuthenticationExtension):
    target_class = DescribedAuthentication
    name = "ownScheme"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer"}


class Courses(APIView):
    permission_classes = [IsAuthenticated]
    serializer_class = CourseSerializer

    def get(self, request: Request) -> Response:
        return Response({"name": "Algebra"})


class CoursesOfSubclass(Courses):
    authentication_classes = [OwnAuthentication]


class DescribedCourses(Courses):
    authentication_classes = [DescribedAuthentication]


class CoursesOfApp(Courses):
    authentication_classes = [InstAccessAuthentication]


urlpatterns = [
    path("courses/default/", Courses.as_view()),
    path("courses/subclass/", CoursesOfSubclass.as_view()),
    path("courses/described/", DescribedCourses.as_view()),
    path("courses/app/", CoursesOfApp.as_view()),
]

"""The URLs of a service, whose views use the authentication of the app, and a subclass of this authentication."""

from django.urls import path
from rest_framework import serializers
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from instaccess.service import InstAccessAuthentication


class CourseSerializer(serializers.Serializer):
    name = serializers.CharField()


class OwnAuthentication(InstAccessAuthentication):
    """A subclass in the project."""


class Courses(APIView):
    permission_classes = [IsAuthenticated]
    serializer_class = CourseSerializer

    def get(self, request: Request) -> Response:
        return Response({"name": "Algebra"})


class CoursesOfSubclass(Courses):
    authentication_classes = [OwnAuthentication]


class CoursesOfApp(Courses):
    authentication_classes = [InstAccessAuthentication]


urlpatterns = [
    path("courses/default/", Courses.as_view()),
    path("courses/subclass/", CoursesOfSubclass.as_view()),
    path("courses/app/", CoursesOfApp.as_view()),
]

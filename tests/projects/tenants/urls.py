"""The URLs of all schools: the URLs of the app, and a view that accepts InstAccess tokens."""

from django.http import JsonResponse
from django.urls import include, path
from rest_framework.views import APIView

from instaccess.service import InstAccessAuthentication


class Whoami(APIView):
    authentication_classes = [InstAccessAuthentication]

    def get(self, request):
        return JsonResponse({"user": request.user.pk, "account": getattr(request.auth, "account_uuid", None)})


urlpatterns = [path("", include("instaccess.urls")), path("whoami", Whoami.as_view())]

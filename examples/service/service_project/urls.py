"""The URLs of the service, and the probes for load balancers."""

from django.urls import include, path

from . import views

urlpatterns = [
    path("api/v1/whoami", views.WhoAmI.as_view()),
    path("", include("instaccess.service.urls")),
]

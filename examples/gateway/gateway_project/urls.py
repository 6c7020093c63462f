"""The URLs of the gateway, and the probes for load balancers. The project has no other views."""

from django.urls import include, path

urlpatterns = [path("", include("instaccess.gateway.urls"))]

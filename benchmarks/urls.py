"""The URLs of this package and of the alternatives."""

from django.urls import include, path

from . import views

urlpatterns = [
    path("", include("instaccess.urls")),
    path("o/", include("oauth2_provider.urls")),
    path("peers/nothing", views.Nothing.as_view()),
    path("peers/naive", views.Naive.as_view()),
    path("peers/simplejwt", views.SimpleJWT.as_view()),
    path("peers/knox", views.Knox.as_view()),
    path("peers/floor", views.floor),
    path("peers/guarded-floor", views.guarded_floor),
    path("peers/204", views.no_content),
    path("peers/service", views.Service.as_view()),
    path("peers/bare-service", views.BareService.as_view()),
]

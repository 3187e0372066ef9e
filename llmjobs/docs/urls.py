"""The addresses of the documentation. A project includes them under `docs/`."""

from django.urls import path

from llmjobs.docs import views

app_name = "llmjobs-docs"

urlpatterns = [
    path("", views.index, name="index"),
    path("search/", views.search, name="search"),
    path("<slug:slug>/", views.page, name="page"),
]

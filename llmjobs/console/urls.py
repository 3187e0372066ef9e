"""The addresses that people open. LOGIN_URL and the redirects after log-in and log-out use these names."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from llmjobs.console import shared, views

urlpatterns = [
    path("", views.index, name="index"),
    path("account/", views.account, name="account"),
    path("login/", LoginView.as_view(template_name="login.html", redirect_authenticated_user=True), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("shared/<str:token>/", shared.page, name="shared"),
    path("shared/<str:token>/text", shared.text, name="shared_text"),
    path("favicon.ico", views.favicon, name="favicon"),
]

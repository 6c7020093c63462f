"""Tests that the issuer reads parameters as UTF-8, with any DEFAULT_CHARSET of the host project."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.test import override_settings

from tests.conftest import ISSUE_URL
from tests.support.answers import claims_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]

FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize("place", ["query", "form"])
@override_settings(DEFAULT_CHARSET="latin-1", INSTACCESS={"USER_UUID_FIELD": "username"})
def test_issuer_reads_a_parameter_as_utf_8_if_the_default_charset_of_the_project_is_latin_1(
    place, post, access_token, user
):
    get_user_model().objects.filter(pk=user.pk).update(is_superuser=True)
    get_user_model().objects.create_user("élodie")
    parameter = "as_user_id=uuid:%C3%A9lodie"

    response = (
        post(access_token, url=f"{ISSUE_URL}?{parameter}")
        if place == "query"
        else post(access_token, data=parameter.encode(), content_type=FORM)
    )

    assert claims_of(response.json()["token"])["sub"] == "élodie"

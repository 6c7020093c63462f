"""What people are asked on confirmation pages."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from ..models import Key

MAX_FILE_BYTES = 64 * 1024


class ConfirmForm(forms.Form):
    """Nothing to fill in: the button itself is the answer. `confirmed` tells it from the button before."""

    confirmed = forms.CharField(widget=forms.HiddenInput, initial="yes")


class GenerateForm(ConfirmForm):
    """What the new key is for."""

    use = forms.ChoiceField(label=_("Use"), choices=Key.Use.choices)


class RotateForm(ConfirmForm):
    """`expected_current` is the key the page was about: a double click finds another one and does nothing."""

    expected_current = forms.CharField(widget=forms.HiddenInput)
    force = forms.BooleanField(label=_("Rotate although it is not due"), required=False)

    def __init__(self, *args: Any, due: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if due:
            del self.fields["force"]
        else:
            self.fields["force"].required = True


class RevokeForm(ConfirmForm):
    """Why; it goes into the audit of the tokens that are revoked."""

    reason = forms.CharField(
        label=_("Reason"), max_length=255, widget=forms.TextInput({"class": "vTextField", "autocomplete": "off"})
    )


class _SecretTextarea(forms.Textarea):
    """Never shows what was pasted again, not even beside an error: it may be a private key, or a token."""

    def __init__(self) -> None:
        super().__init__({"rows": 8, "autocomplete": "off", "spellcheck": "false"})

    def format_value(self, value: Any) -> str:
        return ""


class ImportForm(GenerateForm):
    """A key as a file or as text."""

    file = forms.FileField(label=_("File"), required=False, help_text=_("PEM or JWK."))
    text = forms.CharField(label=_("or text"), required=False, widget=_SecretTextarea)
    with_private = forms.BooleanField(
        label=_("Take the private half in too"),
        required=False,
        help_text=_("The issuer needs only the public half of the gateway's encryption key."),
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        upload = cleaned.get("file")
        if upload is not None and upload.size > MAX_FILE_BYTES:
            raise forms.ValidationError(_("The file is too large for a key."))
        cleaned["data"] = upload.read() if upload is not None else cleaned.get("text", "").encode()
        if not cleaned["data"]:
            raise forms.ValidationError(_("Choose a file, or paste the key."))
        return cleaned


class InspectForm(forms.Form):
    """What is to be inspected. Drawn only, and never bound: no form holds on to a token."""

    token = forms.CharField(
        label=_("Token"),
        # No `max_length`: browsers would cut the token, silently.
        widget=_SecretTextarea,
        help_text=_(
            "Encrypted or decrypted; “Authorization: Bearer” before it does no harm, nor does the issuer's JSON "
            "around it. It is neither stored nor logged, and not shown again."
        ),
    )

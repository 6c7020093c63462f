"""The forms of the confirmation pages and of the inspector."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from ..models import Key
from ..opaque import Opaque

MAX_FILE_BYTES = 64 * 1024

_NEEDS_PERMISSION = _(
    "To import a signing key, you need the permission instaccess.import_signing_keys, because the owner of a signing "
    "key can issue tokens as any user."
)
_MEANING = _(
    "Users with the permission instaccess.import_signing_keys can import signing keys. The owner of an imported "
    "signing key can issue tokens as any user, even as a superuser, because services accept every token signed with "
    "the key."
)
_HAS_PERMISSION = _("You have this permission. Import a signing key only if you trust its owner.")
_LACKS_PERMISSION = _(
    "You don't have this permission, so you can import only encryption keys. To import a signing key, ask a "
    "superuser, or an administrator who has this permission."
)


def explain_signing_permission(*, may_import_signing: bool) -> str:
    """Explain the permission to import signing keys, and what users without the permission can do."""
    return f"{_MEANING} {_HAS_PERMISSION if may_import_signing else _LACKS_PERMISSION}"


class ConfirmForm(forms.Form):
    """A form without visible fields, for a confirmation page.

    A view makes the change only if the request contains the field `confirmed`. Only the confirmation page sends this
    field.
    """

    confirmed = forms.CharField(widget=forms.HiddenInput, initial="yes")


class GenerateForm(ConfirmForm):
    """A form to choose the use of a new key: signing or encryption."""

    use = forms.ChoiceField(label=_("Key use"), choices=Key.Use.choices)


class RotateForm(ConfirmForm):
    """A form to rotate a key.

    `expected_current` is the id of the key that was current when the page was rendered. After a double click, the
    first request changes the current key. The second request contains the id of the previous key, so the second
    request changes nothing.
    """

    expected_current = forms.CharField(widget=forms.HiddenInput)
    force = forms.BooleanField(label=_("Rotate the key before rotation is due"), required=False)

    def __init__(self, *args: Any, due: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if due:
            del self.fields["force"]
        else:
            self.fields["force"].required = True


class RevokeForm(ConfirmForm):
    """A form to enter the reason for a revocation. The audit row of each revoked token records the reason."""

    reason = forms.CharField(
        label=_("Reason"), max_length=255, widget=forms.TextInput({"class": "vTextField", "autocomplete": "off"})
    )


class RevokeUsersForm(RevokeForm):
    """A form to revoke all live tokens of users. If the box is checked, the users' OAuth2 tokens are revoked too."""

    oauth2_tokens = forms.BooleanField(
        label=_("Revoke the OAuth2 tokens too"),
        required=False,
        initial=True,
        help_text=_(
            "With an OAuth2 token, a client can get a new InstAccess token. After a theft, keep this box checked. "
            "The user then has to authorize each application again."
        ),
    )


class _SecretTextarea(forms.Textarea):
    """A text area that never shows its submitted value again, because the value can be a private key or a token."""

    def __init__(self) -> None:
        super().__init__({"rows": 8, "autocomplete": "off", "spellcheck": "false"})

    def format_value(self, value: Any) -> str:
        return ""


class ImportForm(GenerateForm):
    """A form to import a key from a file or from pasted text.

    The owner of a signing key can issue tokens as any user, even as a superuser. Importing a signing key therefore
    needs a separate permission. `may_import_signing` is true if the user has this permission.
    """

    file = forms.FileField(label=_("File"), required=False, help_text=_("PEM or JWK."))
    text = forms.CharField(label=_("Or paste the key"), required=False, widget=_SecretTextarea)
    with_private = forms.BooleanField(
        label=_("Import the private key too"),
        required=False,
        help_text=_("The issuer needs only the public key of the gateway's encryption key pair."),
    )

    def __init__(self, *args: Any, may_import_signing: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.may_import_signing = may_import_signing
        if not may_import_signing:
            # Offer only encryption keys. The field itself accepts both uses, so that `clean_use` can explain the
            # refusal.
            self.fields["use"].widget = forms.Select(choices=[(Key.Use.ENCRYPTION, Key.Use.ENCRYPTION.label)])
            self.fields["use"].help_text = _NEEDS_PERMISSION

    def clean_use(self) -> str:
        use: str = self.cleaned_data["use"]
        if use != Key.Use.ENCRYPTION and not self.may_import_signing:
            raise forms.ValidationError(_NEEDS_PERMISSION)
        return use

    def clean(self) -> dict[str, Any]:
        """Replace the file and the text with `data`, which is opaque, because the data can be a private key."""
        cleaned = super().clean() or {}
        upload, text = cleaned.pop("file", None), cleaned.pop("text", "")
        if upload is not None and upload.size > MAX_FILE_BYTES:
            raise forms.ValidationError(_("The file is too large for a key. Choose a PEM or JWK file."))
        if upload is None and not text:
            raise forms.ValidationError(_("Choose a file or paste the key."))
        cleaned["data"] = Opaque(upload.read() if upload is not None else text.encode())
        return cleaned


class InspectForm(forms.Form):
    """A form to paste the token to inspect.

    The submitted data is never passed to this form, so the page never shows the token again.
    """

    token = forms.CharField(
        label=_("Token"),
        # Don't set `max_length`, because browsers would silently truncate a longer token.
        widget=_SecretTextarea,
        help_text=_(
            "Paste an encrypted or a signed token, an Authorization header, or the issuer's JSON response. "
            "The token is not stored, not logged and not shown again."
        ),
    )

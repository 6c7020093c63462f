"""The buttons and the confirmation pages that rotate, generate, import and revoke keys.

Each button opens a confirmation page that lists the effects. The user submits this page to make the change. All
requests are POST requests with Django's CSRF token and need the permission `instaccess.manage_keys`. To import a
signing key, the user also needs the permission `instaccess.import_signing_keys`. The admin log records each change
with the user and the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ... import audit, keys, web
from ...exceptions import InstAccessError
from ...models import Key
from ...opaque import concealed
from ...times import format_utc
from ..common import ReadOnlyAdmin, render_confirmation, take_form
from ..forms import GenerateForm, ImportForm, RevokeForm, RotateForm, explain_signing_permission


class KeyActions(ReadOnlyAdmin):
    """The admin of read-only keys, with the pages that rotate, generate, import and revoke keys."""

    def get_urls(self) -> list[URLPattern]:
        def wrap(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
            checked: Callable[..., HttpResponse] = self.admin_site.admin_view(self._guarded(view))
            return checked

        return [
            path("rotate/<str:use>/", wrap(self.rotate_view), name="instaccess_key_rotate"),
            path("generate/", wrap(self.generate_view), name="instaccess_key_generate"),
            path("import/", web.takes_secrets(wrap(self.import_view)), name="instaccess_key_import"),
            path("revoke/<str:kid>/", wrap(self.revoke_view), name="instaccess_key_revoke"),
            *super().get_urls(),
        ]

    def has_manage_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may change keys. Permission to view keys is not enough."""
        return request.user.has_perm("instaccess.manage_keys")

    def rotate_view(self, request: HttpRequest, use: str) -> HttpResponse:
        if use not in Key.Use.values:
            return self._refuse(request, _("Unknown key use in the URL. The key use must be `sig` or `enc`."))
        kind, now = Key.Use(use), keys.current_time()
        current = keys.current_key(keys.stored_keys(), kind)
        if current is None:
            return self._refuse(
                request, _("There is no current key to rotate. Run `python manage.py instaccess_init`.")
            )
        if problem := keys.problem(current):
            raise problem
        if request.POST.get("expected_current", current.kid) != current.kid:
            return self._refuse(request, str(_ALREADY_ROTATED))
        rows = keys.authentic_keys(keys.stored_keys().filter(use=kind))
        decision = keys.decide(rows, use=kind, now=now, times=keys.lifecycle_times())
        due = decision.activate is not None
        form = RotateForm(
            request.POST if "confirmed" in request.POST else None, due=due, initial={"expected_current": current.kid}
        )
        if form.is_valid():
            rotation = keys.rotate(
                kind,
                force=bool(form.cleaned_data.get("force")),
                expected_current=form.cleaned_data["expected_current"],
            )
            if rotation.activated is None:
                return self._refuse(request, str(_ALREADY_ROTATED))
            for key in filter(None, (rotation.retired, rotation.activated, rotation.generated)):
                self.log_change(request, key, f"Rotated the {kind.value} keys: this key is now {key.status}.")
            return self._redirect(request, _("Key %(kid)s is now current.") % {"kid": rotation.activated.kid})
        future = keys.next_key(keys.stored_keys(), kind, previous_has_private=current.has_private)
        effects = [
            _("Key %(kid)s retires. Its %(count)d live tokens stay valid until they expire.")
            % {"kid": current.kid, "count": live_tokens(current)},
        ]
        if future is not None:
            effects.append(_("Key %(kid)s becomes current.") % {"kid": future.kid})
            ready = keys.ready_at(future, keys.lifecycle_times())
            if ready > now:
                effects.append(
                    _(
                        "Services may refuse new tokens until %(time)s, because their copies of the JWKS may lack "
                        "this key."
                    )
                    % {"time": format_utc(ready)}
                )
        elif current.has_private:
            effects.append(
                _(
                    "A new key is generated and becomes current immediately. Services may refuse new tokens until "
                    "the services load the JWKS again."
                )
            )
        else:
            return self._refuse(
                request,
                _(
                    "The private key of the current key is not stored here. Import the next public key from the "
                    "owner of the private key."
                ),
            )
        if not due and decision.next_due is not None:
            effects.append(_("Rotation is not due before %(time)s.") % {"time": format_utc(decision.next_due)})
        title = _("Rotate the signing key") if kind == Key.Use.SIGNING else _("Rotate the encryption key")
        return render_confirmation(self, request, form, title=title, button=_("Rotate key"), effects=effects)

    def generate_view(self, request: HttpRequest) -> HttpResponse:
        form = GenerateForm(request.POST if "confirmed" in request.POST else None)
        if form.is_valid():
            key = keys.generate(Key.Use(form.cleaned_data["use"]))
            self.log_addition(request, key, "Generated.")
            return self._redirect(request, _("Key %(kid)s was generated.") % {"kid": key.kid})
        effects = [_("A new key pair is generated as a future key. Live tokens are not affected.")]
        return render_confirmation(
            self, request, form, title=_("Generate a key"), button=_("Generate key"), effects=effects
        )

    def import_view(self, request: HttpRequest) -> HttpResponse:
        may_import_signing = request.user.has_perm("instaccess.import_signing_keys")
        form = _read_import_form(request, may_import_signing=may_import_signing)
        if form.is_valid():
            try:
                key = keys.import_key(
                    form.cleaned_data["data"],
                    use=Key.Use(form.cleaned_data["use"]),
                    with_private=form.cleaned_data["with_private"],
                )
            except InstAccessError as error:
                form.add_error(None, error.detail)
            else:
                self.log_addition(request, key, "Imported with its private key." if key.has_private else "Imported.")
                return self._redirect(request, _("Key %(kid)s was imported.") % {"kid": key.kid})
        effects = [
            _(
                "The key is stored as a future key, and can become current at a later rotation. Live tokens stay "
                "valid."
            ),
        ]
        if may_import_signing:
            effects.append(
                _("If you import a signing key, tokens that are signed with this key are accepted immediately.")
            )
        note = explain_signing_permission(may_import_signing=may_import_signing)
        return render_confirmation(
            self, request, form, title=_("Import a key"), button=_("Import key"), effects=effects, note=note
        )

    def revoke_view(self, request: HttpRequest, kid: str) -> HttpResponse:
        key = keys.find_key(kid)
        if not can_be_revoked(key):
            # If an earlier revocation was interrupted, mark the remaining audit rows as revoked now.
            audit.complete_revocations(keks=keys.keks_for_revocation(), by=request.user)
            return self._refuse(request, _("Key %(kid)s is already revoked.") % {"kid": key.kid})
        form = RevokeForm(request.POST if "confirmed" in request.POST else None)
        if form.is_valid():
            revocation = keys.revoke(key.kid, reason=form.cleaned_data["reason"], by=request.user)
            self.log_change(
                request,
                revocation.key,
                f"Revoked. Live tokens of the key: {revocation.tokens}. Reason: {form.cleaned_data['reason']}",
            )
            for other in filter(None, (revocation.successor, revocation.generated)):
                self.log_change(
                    request, other, f"This key is now {other.status}, because key {revocation.key.kid} was revoked."
                )
            if revocation.failure:
                text = _("No new key was generated: %(reason)s.") % {"reason": revocation.failure}
                self.message_user(request, text, messages.ERROR)
            if keys.current_key(keys.stored_keys(), Key.Use(revocation.key.use)) is None:
                self.message_user(request, _explain_no_current(revocation.key), messages.WARNING)
            return self._redirect(
                request,
                _("Key %(kid)s and its live tokens (%(count)d) were revoked.")
                % {"kid": revocation.key.kid, "count": revocation.tokens},
            )
        effects = [
            _("Gateways refuse all live tokens of this key (%(count)d) within five seconds.")
            % {"count": live_tokens(key)},
            _("The key is removed from the JWKS and its private key is erased. You can't undo a revocation."),
        ]
        effects[1:1] = keys.remaining_work(key.use)
        if key.status == Key.Status.CURRENT:
            effects.append(_describe_successor(key))
        title = _("Revoke key %(kid)s") % {"kid": key.kid}
        return render_confirmation(self, request, form, title=title, button=_("Revoke key"), effects=effects)

    def _guarded(self, view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        def guarded(request: HttpRequest, **kwargs: str) -> HttpResponse:
            if not self.has_manage_permission(request):
                raise PermissionDenied
            # Accept only POST, because a link, an image or a prefetch must not open this page.
            if request.method != "POST":
                text = _("A link can't open this page. Go back to the list of keys and click a button there.")
                return HttpResponseNotAllowed(["POST"], text, content_type="text/plain; charset=utf-8")
            try:
                return view(request, **kwargs)
            except InstAccessError as error:
                return self._refuse(request, error.detail)

        return guarded

    def _may_manage(self, request: HttpRequest, extra_context: dict[str, Any] | None) -> dict[str, Any]:
        return {"may_manage_keys": self.has_manage_permission(request), **(extra_context or {})}

    def _redirect(self, request: HttpRequest, text: str, level: int = messages.SUCCESS) -> HttpResponse:
        self.message_user(request, text, level)
        return HttpResponseRedirect(reverse("admin:instaccess_key_changelist", current_app=self.admin_site.name))

    def _refuse(self, request: HttpRequest, text: str) -> HttpResponse:
        return self._redirect(request, text, messages.ERROR)


@concealed
def _read_import_form(request: HttpRequest, *, may_import_signing: bool) -> ImportForm:
    """Return the import form. Removes the form data and files from the request, so no error report contains the key.

    The form is bound and validated only if the request contains `confirmed`. The form can be invalid.
    """
    data, files = take_form(request)
    bound = (data, files) if "confirmed" in data else ()
    form = ImportForm(*bound, may_import_signing=may_import_signing)
    form.is_valid()
    return form


_ALREADY_ROTATED = gettext_lazy(
    "Nothing was changed, because the key was already rotated: by another user, by the command `instaccess_keys "
    "rotate`, or by a double click."
)


def _explain_no_current(key: Key) -> str:
    """Explain that there is no current key for the use of `key`, and what the user can do."""
    text = _(
        "No tokens can be issued while there is no current %(use)s key. Import or generate a key, then make the key "
        "current."
    )
    return text % {"use": key.get_use_display()}


def _describe_successor(current: Key) -> str:
    """Describe the key that becomes current if the current key is revoked."""
    future = keys.next_key(keys.stored_keys(), Key.Use(current.use), previous_has_private=current.has_private)
    if future is not None:
        return _("Key %(kid)s becomes current.") % {"kid": future.kid}
    return _("A new key is generated and becomes current.") if current.has_private else _explain_no_current(current)


def can_be_revoked(key: Key) -> bool:
    """Return whether a revocation by key id is possible and would change the key.

    A revocation changes a key that isn't revoked yet, and a key whose row isn't authentic.
    """
    if not keys.is_revocable(key):
        return False
    return key.status != Key.Status.REVOKED or not keys.is_authentic(key, keys.keks_for_revocation())


def live_tokens(key: Key) -> int:
    """Return the number of live tokens that are signed with, or encrypted for, a key."""
    return audit.live_tokens().filter(audit.filter_by_keys([key.kid])).count()

"""The buttons on keys. Each opens a confirmation page that says what will happen, and acts when that is sent.

All of it is POST with Django's CSRF token, needs the permission `instaccess.manage_keys`, and is written into the
admin's log with who and when. What is done is done by `keys.py` and `lifecycle.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from ... import audit, keys
from ...exceptions import InstAccessError
from ...models import Key
from ...times import format_utc
from ..common import ReadOnlyAdmin, render_confirmation
from ..forms import GenerateForm, ImportForm, RevokeForm, RotateForm


class KeyActions(ReadOnlyAdmin):
    """Rows to look at, and the acts on them."""

    def get_urls(self) -> list[URLPattern]:
        def act(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
            checked: Callable[..., HttpResponse] = self.admin_site.admin_view(self._guarded(view))
            return checked

        return [
            path("rotate/<str:use>/", act(self.rotate_view), name="instaccess_key_rotate"),
            path("generate/", act(self.generate_view), name="instaccess_key_generate"),
            path("import/", act(self.import_view), name="instaccess_key_import"),
            path("revoke/<str:kid>/", act(self.revoke_view), name="instaccess_key_revoke"),
            *super().get_urls(),
        ]

    def has_manage_permission(self, request: HttpRequest) -> bool:
        """May change keys. Seeing them is another permission."""
        return request.user.has_perm("instaccess.manage_keys")

    def rotate_view(self, request: HttpRequest, use: str) -> HttpResponse:
        if use not in Key.Use.values:
            return self._refuse(request, _("There is no such use of keys."))
        kind, now = Key.Use(use), timezone.now()
        current = keys.current_key(keys.stored_keys(), kind)
        if current is None:
            return self._refuse(
                request, _("There is no current key to rotate. Run `python manage.py instaccess_init`.")
            )
        if request.POST.get("expected_current", current.kid) != current.kid:
            return self._refuse(request, _("Nothing was rotated: somebody else, or a second click, was faster."))
        decision = keys.decide(keys.stored_keys().filter(use=kind), use=kind, now=now, times=keys.lifecycle_times())
        due = decision.activate is not None
        form = RotateForm(
            request.POST if "confirmed" in request.POST else None, due=due, initial={"expected_current": current.kid}
        )
        if form.is_valid():
            done = keys.rotate(
                kind,
                force=bool(form.cleaned_data.get("force")),
                expected_current=form.cleaned_data["expected_current"],
            )
            if done.activated is None:
                return self._refuse(request, _("Nothing was rotated: somebody else, or a second click, was faster."))
            for key in filter(None, (done.retired, done.activated, done.made)):
                self.log_change(request, key, f"Rotated the {kind.value} keys: now {key.status}.")
            return self._done(request, _("Key %(kid)s is current now.") % {"kid": done.activated.kid})
        future = keys.next_key(keys.stored_keys(), kind, after_ours=current.has_private)
        effects = [
            _("Key %(kid)s retires. Tokens under it that are live now (%(count)d) stay valid until they expire.")
            % {"kid": current.kid, "count": live_tokens(current)},
        ]
        if future is not None:
            effects.append(_("Key %(kid)s takes over.") % {"kid": future.kid})
            ready = keys.ready_at(future, keys.lifecycle_times())
            if ready > now:
                effects.append(
                    _("Until %(time)s services may refuse new tokens: their copy of the JWKS may lack the key.")
                    % {"time": format_utc(ready)}
                )
        elif current.has_private:
            effects.append(_("A new key is made and takes over at once; services may not know it for some minutes."))
        else:
            return self._refuse(
                request, _("Its private half is elsewhere: import the next public key from its owner first.")
            )
        if not due and decision.next_due is not None:
            effects.append(_("It is not due before %(time)s.") % {"time": format_utc(decision.next_due)})
        title = _("Rotate the signing key") if kind == Key.Use.SIGNING else _("Rotate the encryption key")
        return render_confirmation(self, request, form, title=title, button=_("Rotate"), effects=effects)

    def generate_view(self, request: HttpRequest) -> HttpResponse:
        form = GenerateForm(request.POST if "confirmed" in request.POST else None)
        if form.is_valid():
            key = keys.generate(Key.Use(form.cleaned_data["use"]))
            self.log_addition(request, key, "Generated.")
            return self._done(request, _("Key %(kid)s was made.") % {"kid": key.kid})
        effects = [_("A new key pair is made as a future key. Live tokens are not affected.")]
        return render_confirmation(
            self, request, form, title=_("Generate a key"), button=_("Generate"), effects=effects
        )

    @sensitive_variables()
    def import_view(self, request: HttpRequest) -> HttpResponse:
        sent = "confirmed" in request.POST
        form = ImportForm(request.POST if sent else None, request.FILES if sent else None)
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
                self.log_addition(request, key, "Imported with its private half." if key.has_private else "Imported.")
                return self._done(request, _("Key %(kid)s was imported.") % {"kid": key.kid})
        effects = [
            _("The key is stored as a future key. Live tokens are not affected; it takes over at a later rotation."),
            _("Tokens that were signed with a signing key are accepted from now on."),
        ]
        return render_confirmation(self, request, form, title=_("Import a key"), button=_("Import"), effects=effects)

    def revoke_view(self, request: HttpRequest, kid: str) -> HttpResponse:
        key = keys.find_key(kid)
        if key.status == Key.Status.REVOKED:
            return self._refuse(request, _("Key %(kid)s is revoked already.") % {"kid": key.kid})
        form = RevokeForm(request.POST if "confirmed" in request.POST else None)
        if form.is_valid():
            done = keys.revoke(key.kid, reason=form.cleaned_data["reason"], by=request.user)
            self.log_change(
                request, done.key, f"Revoked with {done.tokens} live tokens: {form.cleaned_data['reason']}"
            )
            for other in filter(None, (done.successor, done.made)):
                self.log_change(request, other, f"{other.status.capitalize()} after {done.key.kid} was revoked.")
            if done.failure:
                text = _("No new key could be made: %(reason)s.") % {"reason": done.failure}
                self.message_user(request, text, messages.ERROR)
            if keys.current_key(keys.stored_keys(), Key.Use(done.key.use)) is None:
                self.message_user(request, _NONE_CURRENT, messages.WARNING)
            return self._done(
                request,
                _("Key %(kid)s is revoked, and with it every live token under it (%(count)d).")
                % {"kid": done.key.kid, "count": done.tokens},
            )
        effects = [
            _("Every live token under this key (%(count)d now) is refused within five seconds.")
            % {"count": live_tokens(key)},
            _("The key leaves the JWKS and its private half is erased. This can't be undone."),
        ]
        if key.status == Key.Status.CURRENT:
            effects.append(_taking_over(key))
        title = _("Revoke key %(kid)s") % {"kid": key.kid}
        return render_confirmation(self, request, form, title=title, button=_("Revoke"), effects=effects)

    def _guarded(self, view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @sensitive_post_parameters()
        def guarded(request: HttpRequest, **kwargs: str) -> HttpResponse:
            if not self.has_manage_permission(request):
                raise PermissionDenied
            # A link, an image or a prefetch must not even open the page.
            if request.method != "POST":
                text = _("Go back to the list of keys: a button there opens this page.")
                return HttpResponseNotAllowed(["POST"], text, content_type="text/plain; charset=utf-8")
            try:
                return view(request, **kwargs)
            except InstAccessError as error:
                return self._refuse(request, error.detail)

        return guarded

    def _may_manage(self, request: HttpRequest, extra_context: dict[str, Any] | None) -> dict[str, Any]:
        return {"may_manage_keys": self.has_manage_permission(request), **(extra_context or {})}

    def _done(self, request: HttpRequest, text: str, level: int = messages.SUCCESS) -> HttpResponse:
        self.message_user(request, text, level)
        return HttpResponseRedirect(reverse("admin:instaccess_key_changelist", current_app=self.admin_site.name))

    def _refuse(self, request: HttpRequest, text: str) -> HttpResponse:
        return self._done(request, text, messages.ERROR)


_NONE_CURRENT = gettext_lazy(
    "No key of this use is current, so no token can be issued: import or generate one, and make it current."
)


def _taking_over(current: Key) -> str:
    """What follows when the current key is revoked."""
    future = keys.next_key(keys.stored_keys(), Key.Use(current.use), after_ours=current.has_private)
    if future is not None:
        return _("Key %(kid)s takes over.") % {"kid": future.kid}
    return _("A new key is made and takes over.") if current.has_private else str(_NONE_CURRENT)


def live_tokens(key: Key) -> int:
    """How many tokens under a key are live now."""
    return audit.live_tokens().filter(audit.filter_by_keys([key.kid])).count()

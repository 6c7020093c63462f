// Gives each search box of Django's admin the name of its label. Without this script, screen readers read an empty box
// without a name. This script is loaded after `autocomplete.js`, so the boxes exist when the function runs.
django.jQuery(() => {
    for (const select of document.querySelectorAll("select.admin-autocomplete")) {
        const content = document.getElementById(`select2-${select.id}-container`);
        const label = document.querySelector(`label[for="${select.id}"]`);
        if (content && label) {
            label.id ||= `${select.id}_label`;
            content.setAttribute("aria-labelledby", label.id);
            content.closest("[role=combobox]").setAttribute("aria-labelledby", `${label.id} ${content.id}`);
        }
    }
});

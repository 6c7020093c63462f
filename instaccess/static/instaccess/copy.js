// Adds a copy button after each text with `data-copy`. Without JavaScript, users can still select the text.
document.addEventListener("DOMContentLoaded", () => {
    for (const text of document.querySelectorAll("[data-copy]")) {
        const button = document.createElement("button");
        const answer = document.createElement("span");
        button.type = "button";
        button.className = "button instaccess-copy";
        button.textContent = text.dataset.copy;
        // Screen readers announce changes only in a live region that already exists.
        answer.setAttribute("role", "status");
        button.addEventListener("click", async () => {
            answer.textContent = "";
            try {
                await navigator.clipboard.writeText(text.textContent);
                answer.textContent = text.dataset.copied;
            } catch {
                // Browsers disable the clipboard on plain HTTP. Select the text, so that users can copy it by keyboard.
                getSelection().selectAllChildren(text);
                answer.textContent = text.dataset.selected;
            }
        });
        const line = document.createElement("p");
        line.append(button, " ", answer);
        text.after(line);
    }
});

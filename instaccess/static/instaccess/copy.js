// A button beside each text that people copy. Without script there is none, and the text can still be selected.
document.addEventListener("DOMContentLoaded", () => {
    for (const text of document.querySelectorAll("[data-copy]")) {
        const button = document.createElement("button");
        const answer = document.createElement("span");
        button.type = "button";
        button.className = "button instaccess-copy";
        button.textContent = text.dataset.copy;
        answer.setAttribute("role", "status"); // a live region, there before it speaks
        button.addEventListener("click", async () => {
            answer.textContent = "";
            try {
                await navigator.clipboard.writeText(text.textContent);
                answer.textContent = text.dataset.copied;
            } catch {
                // No clipboard, as over plain http: what is selected can be copied by keyboard.
                getSelection().selectAllChildren(text);
                answer.textContent = text.dataset.selected;
            }
        });
        const line = document.createElement("p");
        line.append(button, " ", answer);
        text.after(line);
    }
});

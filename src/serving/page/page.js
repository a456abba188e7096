"use strict";
const form = document.querySelector("form");
const line = form.querySelector("[role=status]");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  line.textContent = "…";
  const options = { method: "POST", headers: { "Content-Type": "application/json" } };
  try {
    const answer = await fetch("explain", { ...options, body: JSON.stringify({ text: form.elements.text.value }) });
    const content = await answer.json();
    if (!answer.ok) throw new Error(content.detail);
    document.querySelector("main").replaceChildren(show(content));
    line.textContent = "";
  } catch (error) {
    line.textContent = error.message;
  }
});

// A row of sample photographs; a click opens one.
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-name]");
  if (button) trigger("pick", { name: button.dataset.name });
});

// Runs in the page and returns what breaks the rules that people with keyboards and screen readers depend on.
() => {
  const wrong = [];
  const shown = (element) => element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length;
  const all = (selector) => [...document.querySelectorAll(selector)].filter(shown);
  const told = (element) => element.id ? `#${element.id}` : element.outerHTML.slice(0, 80);

  if (document.documentElement.lang !== "en") wrong.push("the document has no language");
  if (!document.title.trim()) wrong.push("the document has no title");
  if (all("h1").length !== 1) wrong.push("not exactly one h1");
  for (const landmark of ["header", "main", "footer"])
    if (all(landmark).length !== 1) wrong.push(`not exactly one ${landmark}`);
  for (const section of all("section"))
    if (!document.getElementById(section.getAttribute("aria-labelledby"))) wrong.push(`${told(section)} has no name`);
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  if (new Set(ids).size !== ids.length) wrong.push("an id is there twice");
  let before = 1;
  for (const heading of all("h1, h2, h3, h4")) {
    const level = Number(heading.tagName[1]);
    if (level > before + 1) wrong.push(`${told(heading)} skips a level`);
    before = level;
  }

  const name = (element) => (element.getAttribute("aria-label") ?? "") +
    [...(element.labels ?? [])].map((label) => label.textContent).join("") +
    (["BUTTON", "A", "SUMMARY"].includes(element.tagName) ? element.textContent : "");
  for (const control of all("input, select, textarea, button, a, summary"))
    if (!name(control).trim()) wrong.push(`${told(control)} has no name`);
  for (const picture of all("img")) if (!picture.alt.trim()) wrong.push(`${told(picture)} has no words`);
  for (const canvas of all("canvas"))
    if (canvas.getAttribute("aria-hidden") !== "true") wrong.push(`${told(canvas)} has no words`);
  for (const table of all("table")) {
    if (!table.caption?.textContent.trim()) wrong.push(`${told(table)} has no caption`);
    for (const head of table.querySelectorAll("th"))
      if (!["row", "col"].includes(head.scope)) wrong.push(`${told(head)} heads nothing`);
  }
  for (const [id, role] of [["status", "status"], ["error", "alert"]])
    if (document.getElementById(id)?.getAttribute("role") !== role) wrong.push(`#${id} is not read out`);

  const channels = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = (color) => {
    const [r, g, b] = channels(color).map((value) => value / 255)
      .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4); // WCAG 2.2, relative luminance
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = getComputedStyle(each).backgroundColor;
      if ((channels(color)[3] ?? 1) > 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  let measured = 0;
  for (const element of all("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own && !element.matches("input:not([type=range]), textarea, select")) continue;
    const levels = [luminance(getComputedStyle(element).color), luminance(background(element))];
    const contrast = (Math.max(...levels) + 0.05) / (Math.min(...levels) + 0.05);
    measured += 1;
    if (contrast < 4.5) wrong.push(`${told(element)} has a contrast of ${contrast.toFixed(2)}`);
  }
  if (measured < 20) wrong.push(`only ${measured} texts were found to measure`);
  return wrong;
}

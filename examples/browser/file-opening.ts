/** Files that somebody opens: chosen in a dialog, or dropped anywhere on the page. */

/** The elements that this goes by. */
export interface OpeningElements {
  readonly button: HTMLButtonElement;
  readonly chooser: HTMLInputElement;
  /** Shown while a file is held above the page. */
  readonly target: HTMLElement;
}

/** @param open - somebody wants to open these; never none */
export function listenForFiles(elements: OpeningElements, open: (files: readonly File[]) => void): void {
  const { button, chooser, target } = elements;
  button.addEventListener("click", () => {
    chooser.click();
  });
  chooser.addEventListener("change", () => {
    const files = [...(chooser.files ?? [])];
    chooser.value = ""; // the same one may be chosen again
    if (files.length > 0) open(files);
  });
  const holdsFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") === true;
  // entering a child leaves its parent, afterwards
  let inside = 0;
  const show = (): void => {
    target.hidden = inside === 0;
  };
  addEventListener("dragenter", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    inside++;
    show();
  });
  addEventListener("dragleave", (event) => {
    if (!holdsFiles(event)) return;
    inside = Math.max(0, inside - 1);
    show();
  });
  addEventListener("dragover", (event) => {
    if (holdsFiles(event)) event.preventDefault();
  });
  addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    inside = 0;
    show();
    const files = [...event.dataTransfer!.files];
    if (files.length > 0) open(files);
  });
}

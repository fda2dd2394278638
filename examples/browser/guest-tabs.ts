/** The tabs, one for each guest, which arrow keys walk along. */

const STEPS: Partial<Record<string, (at: number, count: number) => number>> = {
  ArrowLeft: (at, count) => (at + count - 1) % count,
  ArrowRight: (at, count) => (at + 1) % count,
  Home: () => 0,
  End: (_at, count) => count - 1,
};

/** Tabs in front of one panel. */
export class GuestTabs {
  readonly #buttons = new Map<number, HTMLButtonElement>();

  /** @param choose - somebody wants to see that guest; `pointed`: with a mouse or a finger */
  constructor(
    private readonly list: HTMLElement,
    private readonly panel: HTMLElement,
    private readonly choose: (number: number, pointed: boolean) => void,
  ) {
    list.addEventListener("keydown", (event) => {
      const buttons = [...this.#buttons.values()];
      const at = buttons.findIndex((button) => button === document.activeElement);
      const step = STEPS[event.key];
      if (at < 0 || step === undefined) return;
      event.preventDefault();
      const next = buttons[step(at, buttons.length)]!;
      next.click();
      next.focus();
    });
  }

  /** Shows tabs for these guests, and which one is shown. */
  show(guests: readonly number[], shown: number | null): void {
    if (guests.join() !== [...this.#buttons.keys()].join()) this.#build(guests);
    for (const [number, button] of this.#buttons) {
      button.setAttribute("aria-selected", String(number === shown));
      button.tabIndex = number === shown ? 0 : -1;
    }
    if (shown === null) this.panel.removeAttribute("aria-labelledby");
    else this.panel.setAttribute("aria-labelledby", idOf(shown));
  }

  #build(guests: readonly number[]): void {
    this.#buttons.clear();
    for (const number of guests) {
      const button = document.createElement("button");
      button.type = "button";
      button.id = idOf(number);
      button.setAttribute("role", "tab");
      button.setAttribute("aria-controls", this.panel.id);
      button.textContent = `Guest ${number}`;
      button.addEventListener("click", (event) => {
        this.choose(number, event.detail > 0);
      });
      this.#buttons.set(number, button);
    }
    this.list.replaceChildren(...this.#buttons.values());
  }
}

const idOf = (number: number): string => `guest-tab-${number}`;

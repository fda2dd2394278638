/** The table of a guest's network cards: what they are, what they did, and a switch for each link. */
import { CARD_KINDS } from "../linux/cards.js";
import type { PageCard, PageGuest } from "./page-guest.js";

/** The table. It is filled anew only when its rows change, so that its buttons keep the focus. */
export class CardTable {
  readonly #rows = new Map<PageCard, HTMLTableRowElement>();
  readonly #body: HTMLTableSectionElement;

  /** @param toggle - somebody wants a link to be the other way */
  constructor(
    table: HTMLTableElement,
    private readonly toggle: (card: PageCard) => void,
  ) {
    this.#body = table.tBodies[0] ?? table.createTBody();
  }

  /** Shows some cards of a guest as they are now. @param enabled - whether their links may be switched */
  show(guest: PageGuest, cards: readonly PageCard[], enabled: boolean): void {
    const readings = guest.readings();
    if (cards.length !== this.#rows.size) this.#build(cards);
    for (const card of cards) {
      const [, address, frames, drops, link] = this.#rows.get(card)!.cells;
      const reading = readings[card];
      address!.textContent =
        card === "eth3"
          ? guest.spareAddress
          : guest.cards.find((candidate) => candidate.name === card)!.guestAddress;
      frames!.textContent = (reading?.frames ?? 0).toLocaleString("en-US");
      drops!.textContent = (reading?.drops ?? 0).toLocaleString("en-US");
      const button = link!.querySelector("button")!;
      const up = guest.hasCarrier(card);
      button.textContent = up ? "up" : "down";
      button.disabled = !enabled;
      button.setAttribute("aria-pressed", String(up));
    }
  }

  #build(cards: readonly PageCard[]): void {
    this.#body.replaceChildren();
    this.#rows.clear();
    for (const card of cards) {
      const row = this.#body.insertRow();
      row.dataset.card = card;
      row.style.setProperty("--colour", `var(--${card})`);
      const name = row.insertCell();
      name.className = "name";
      name.textContent = card;
      const kind = document.createElement("small");
      kind.textContent = card === "eth3" ? "venet, plugged in" : CARD_KINDS[card];
      name.append(kind);
      row.insertCell();
      row.insertCell().className = "figure";
      row.insertCell().className = "figure";
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-label", `link of ${card}`);
      button.addEventListener("click", () => {
        this.toggle(card);
      });
      row.insertCell().append(button);
      this.#rows.set(card, row);
    }
  }
}

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

  /**
   * Shows some cards of a guest as they are now; null: of none, there are no cards then.
   * @param enabled - whether their links may be switched
   */
  show(guest: PageGuest | null, cards: readonly PageCard[], enabled: boolean): void {
    if (cards.join() !== [...this.#rows.keys()].join()) this.#build(cards);
    if (guest === null) return;
    const readings = guest.readings();
    for (const card of cards) {
      const [, address, frames, drops, link] = this.#rows.get(card)!.cells;
      const reading = readings[card];
      address!.textContent =
        card === "eth3"
          ? guest.spareAddress
          : guest.cards.find((candidate) => candidate.name === card)!.guestAddress;
      frames!.textContent = (reading?.frames ?? 0).toLocaleString("en-US");
      drops!.textContent = (reading?.drops ?? 0).toLocaleString("en-US");
      const up = guest.hasCarrier(card);
      link!.dataset.link = up ? "up" : "down";
      link!.querySelector("span")!.textContent = up ? "up" : "down";
      const button = link!.querySelector("button")!;
      button.textContent = up ? "take down" : "bring up";
      button.disabled = !enabled;
    }
  }

  #build(cards: readonly PageCard[]): void {
    this.#body.replaceChildren();
    this.#rows.clear();
    for (const card of cards) {
      const row = this.#body.insertRow();
      row.dataset.card = card;
      row.style.setProperty("--colour", `var(--${card})`);
      const name = document.createElement("th");
      name.scope = "row";
      row.append(name);
      name.className = "name";
      name.id = `card-${card}`;
      name.textContent = card;
      const kind = document.createElement("small");
      kind.textContent = card === "eth3" ? "venet" : CARD_KINDS[card];
      name.append(kind);
      row.insertCell();
      row.insertCell().className = "figure";
      row.insertCell().className = "figure";
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-describedby", `card-${card}`);
      button.addEventListener("click", () => {
        this.toggle(card);
      });
      const link = row.insertCell();
      link.className = "link";
      link.append(document.createElement("span"), " ", button);
      this.#rows.set(card, row);
    }
  }
}

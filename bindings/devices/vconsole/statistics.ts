/** Why bytes of a console were dropped. Every byte that is dropped is counted under one of these. */
export type ConsoleDropReason =
  | "no-guest" // written while no guest was there, and the back-log was full
  | "hangup" // of a conversation that was over: not delivered in time, or sent after its end
  | "closed"; // in the guest's ring when its session ended, and the terminal had no room

/** Bytes of one direction of a console. `bytes = passed + Σ drops + held` holds between any two calls. */
export interface ConsoleDirection {
  /** Bytes that entered: taken from the guest's ring, or accepted by `write`. */
  bytes: number;
  /** Bytes that left: handed to the reader, or put into the guest's ring. */
  passed: number;
  /** Bytes dropped, by reason; absent means 0. */
  drops: Partial<Record<ConsoleDropReason, number>>;
  /** Bytes that wait: unread, or in the back-log. */
  held: number;
}

/** What a console counted since its terminal was made. RX and TX are the guest's. */
export interface ConsoleStatistics {
  /** From the guest. */
  tx: ConsoleDirection;
  /** To the guest. */
  rx: ConsoleDirection;
  /** Conversations that began. */
  conversations: number;
  /** Hang-ups by either side, and sessions that ended in a conversation. */
  hangups: number;
  /** Changes of the window size. */
  resizes: number;
}

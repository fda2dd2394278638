/** Where a received frame went; every frame goes to exactly one of these. */
export type FrameFate =
  | "arp"
  | "neighbour" // IPv6 neighbour discovery
  | "icmp"
  | "udp"
  | "tcp"
  | "foreign" // for another station or address
  | "unknown" // a protocol that this peer does not speak
  | "malformed" // lengths or headers that contradict each other
  | "fragment" // IP fragments are not put together
  | "checksum"; // counted in `checksumErrors`, too

/** Frames of one direction. */
export interface TrafficCounters {
  frames: number;
  bytes: number;
  /** Frames with segmentation data. */
  superframes: number;
  /** … of those with ECN's CWR. */
  ecnSuperframes: number;
  /** Frames with a partial checksum, superframes included. */
  partialChecksums: number;
  /** Calls that handed frames over: what may cost a doorbell or an interrupt. */
  bursts: number;
  /** Most frames in one call. */
  longestBurst: number;
  /** Calls with 1, 2…3, 4…7, 8…15 … frames. */
  burstSizes: number[];
}

/** What TCP did. */
export interface TcpCounters {
  /** Connections that were established. */
  established: number;
  /** Connections that ended in any way but both sides finishing. */
  failed: number;
  /** Payload bytes received in order, all connections together. */
  bytesReceived: number;
  /** Payload bytes that the other side acknowledged. */
  bytesAcknowledged: number;
  /** Segments sent (a superframe is one). */
  segmentsSent: number;
  /** … without payload, SYN, FIN or RST. */
  acksSent: number;
  /** Segments with payload sent once more, for any reason. */
  retransmissions: number;
  /** Losses found by duplicate or selective acknowledgements. */
  fastRecoveries: number;
  /** Losses found by time-out. */
  timeouts: number;
  /** Segments that had been received before. */
  duplicates: number;
  /** Segments that came before those in front of them. */
  outOfOrder: number;
  /** Segments outside the window, or that no state expects. */
  unacceptable: number;
  /** Resets sent. */
  resetsSent: number;
  /** Resets received. */
  resetsReceived: number;
  /** Connections that negotiated ECN. */
  ecn: number;
  /** Segments received with a congestion mark. */
  congestionMarks: number;
  /** Segments received with ECE, SYN apart. */
  congestionEchoes: number;
}

/** Everything a network peer counts. */
export interface PeerCounters {
  /** `frames` is the sum of all {@link PeerCounters.fates}. */
  received: TrafficCounters;
  sent: TrafficCounters;
  /** Frames that were to be sent, but found the queue full (echoes) or the peer closed. */
  unsent: number;
  /** Frames handed to the port that it had malformed: none, unless something is wrong here. */
  refused: number;
  /** Times that the port took fewer frames than offered. */
  pushedBack: number;
  fates: Record<FrameFate, number>;
  checksumErrors: { ip: number; icmp: number; udp: number; tcp: number };
  /** Ranges of received streams and datagrams that were not the pattern. */
  patternErrors: number;
  tcp: TcpCounters;
}

function emptyTraffic(): TrafficCounters {
  return {
    frames: 0,
    bytes: 0,
    superframes: 0,
    ecnSuperframes: 0,
    partialChecksums: 0,
    bursts: 0,
    longestBurst: 0,
    burstSizes: [],
  };
}

/** Counts a call that handed n frames over. */
export function countBurst(traffic: TrafficCounters, n: number): void {
  traffic.bursts++;
  if (n > traffic.longestBurst) traffic.longestBurst = n;
  const size = 31 - Math.clz32(n);
  while (traffic.burstSizes.length <= size) traffic.burstSizes.push(0);
  traffic.burstSizes[size]!++;
}

/** Fresh counters. */
export function emptyCounters(): PeerCounters {
  return {
    received: emptyTraffic(),
    sent: emptyTraffic(),
    unsent: 0,
    refused: 0,
    pushedBack: 0,
    fates: {
      arp: 0,
      neighbour: 0,
      icmp: 0,
      udp: 0,
      tcp: 0,
      foreign: 0,
      unknown: 0,
      malformed: 0,
      fragment: 0,
      checksum: 0,
    },
    checksumErrors: { ip: 0, icmp: 0, udp: 0, tcp: 0 },
    patternErrors: 0,
    tcp: {
      established: 0,
      failed: 0,
      bytesReceived: 0,
      bytesAcknowledged: 0,
      segmentsSent: 0,
      acksSent: 0,
      retransmissions: 0,
      fastRecoveries: 0,
      timeouts: 0,
      duplicates: 0,
      outOfOrder: 0,
      unacceptable: 0,
      resetsSent: 0,
      resetsReceived: 0,
      ecn: 0,
      congestionMarks: 0,
      congestionEchoes: 0,
    },
  };
}

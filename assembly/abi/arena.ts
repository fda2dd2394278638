/**
 * Layouts that only this engine and its typed door know: they live in an *arena*, outside every guest
 * region, and are private to one (memory, thread). Not part of the ABI; may change in any version.
 *
 * Multi-byte members are little endian; 64-bit members are 8-byte aligned.
 */

/* ---- region table: which guest-physical ranges exist, and where they lie in this memory ---------- */

/** Number of regions. */
export const REGIONS_OFF_COUNT = 0;
/** Address of the write log of this memory, 0 = off. */
export const REGIONS_OFF_WRITE_LOG = 4;
/** First region entry. */
export const REGIONS_OFF_ENTRIES = 16;
/** Entry: guest-physical start, u64. */
export const REGION_OFF_GPA = 0;
/** Entry: length in bytes, u32. */
export const REGION_OFF_LENGTH = 8;
/** Entry: address in this memory, u32. */
export const REGION_OFF_ADDRESS = 12;
/** Size of an entry. */
export const REGION_SIZE = 16;
/** Most regions a table may hold. */
export const REGIONS_MAX = 15;
/** Size of a region table. */
export const REGIONS_SIZE = 256;

/* ---- write log: guest ranges that the engine wrote --------------------------------------------- */

/** Number of entries that fit. */
export const WRITE_LOG_OFF_CAPACITY = 0;
/** Number of entries present. */
export const WRITE_LOG_OFF_COUNT = 4;
/** Non-zero: entries were lost; everything may have been written. */
export const WRITE_LOG_OFF_OVERFLOW = 8;
/** First entry. */
export const WRITE_LOG_OFF_ENTRIES = 16;
/** Entry: guest-physical start, u64. */
export const WRITE_LOG_ENTRY_OFF_GPA = 0;
/** Entry: length, u32. */
export const WRITE_LOG_ENTRY_OFF_LENGTH = 8;
/** Size of an entry. */
export const WRITE_LOG_ENTRY_SIZE = 16;

/* ---- signal state (bare, and first part of an endpoint) ---------------------------------------- */

/** Absolute address of the shared record (cache, see `rebase`). */
export const SIG_OFF_RECORD = 0;
/** Absolute address of the local irq record (cache). */
export const SIG_OFF_LOCAL = 4;
/** Absolute address of the peer's irq record (cache). */
export const SIG_OFF_REMOTE = 8;
/** Own locale. */
export const SIG_OFF_LOCALE = 12;
/** "In wakeup" flag (`docs/abi/shm-signal.md` 2.6). */
export const SIG_OFF_IN_WAKEUP = 16;
/** Notifier runs left in this wakeup. */
export const SIG_OFF_BUDGET = 20;
/** Descriptors moved when the wakeup began, u64. */
export const SIG_OFF_MARK = 24;
/** Guest-physical address of the shared record, u64. */
export const SIG_OFF_GPA = 32;
/** Address of the region table. */
export const SIG_OFF_REGIONS = 40;
/** {@link SIG_KIND_BARE} or {@link SIG_KIND_IOQ}. */
export const SIG_OFF_KIND = 44;
/** Doorbells asked for, u64. */
export const SIG_OFF_SENT = 48;
/** Injects that found one pending, u64. */
export const SIG_OFF_SUPPRESSED = 56;
/** Injects that found the peer masked, u64. */
export const SIG_OFF_MASKED = 64;
/** Wakeups begun, u64. */
export const SIG_OFF_WAKEUPS = 72;
/** Wakeups that found nothing to do, u64. */
export const SIG_OFF_SPURIOUS = 80;
/** Deferred wakeups asked for by enable, u64. */
export const SIG_OFF_DEFERRED = 88;
/** Notifier runs, u64. */
export const SIG_OFF_NOTIFIED = 96;
/** Wakeups whose budget was spent, u64. */
export const SIG_OFF_EXHAUSTED = 104;
/** Size of a bare signal's state. */
export const SIG_STATE_SIZE = 128;
/** A signal of its own. */
export const SIG_KIND_BARE = 1;
/** The signal of an IOQ endpoint. */
export const SIG_KIND_IOQ = 2;

/* ---- endpoint state: one side of one ring ------------------------------------------------------ */

/** Absolute address of the segment (cache). */
export const EP_OFF_RING = 128;
/** Absolute address of descriptor 0 (cache). */
export const EP_OFF_DESC = 132;
/** Number of descriptors, copied once. */
export const EP_OFF_COUNT = 136;
/** Size of a descriptor. */
export const EP_OFF_STRIDE = 140;
/** 0, or the {@link VIOLATION_INDEX | violation} that broke this queue. */
export const EP_OFF_BROKEN = 144;
/** Which index ends this side moves: `OWNS_…` bits. */
export const EP_OFF_OWNED = 148;
/** Negotiated extension bits. */
export const EP_OFF_EXTENSIONS = 152;
/** Extension bits that north offered. */
export const EP_OFF_OFFERED = 156;
/** Private valid.head, valid.tail, inuse.head, inuse.tail. */
export const EP_OFF_INDEXES = 160;
/** Descriptors on the valid index (north only). */
export const EP_OFF_VALID_COUNT = 176;
/** Descriptors that the last reserve granted and no commit used. */
export const EP_OFF_GRANTED_PUSH = 180;
/** Descriptors that the last peek granted and no release used. */
export const EP_OFF_GRANTED_POP = 184;
/** Length of the segment. */
export const EP_OFF_LENGTH = 188;
/** Guest-physical address of the segment, u64. */
export const EP_OFF_GPA = 192;
/** Descriptors pushed, u64. */
export const EP_OFF_PUSHED = 200;
/** Descriptors popped, u64. */
export const EP_OFF_POPPED = 208;
/** Bytes that went through descriptors, u64. */
export const EP_OFF_BYTES = 216;
/** Violations by kind, u32 each. */
export const EP_OFF_VIOLATIONS = 224;
/** Offset of the owner byte in a descriptor. */
export const EP_OFF_OWNER = 256;
/** Absolute address of the list of cookies (cache); 0: they are in the descriptors. */
export const EP_OFF_COOKIES = 260;
/** Size of an endpoint's state. */
export const EP_STATE_SIZE = 320;

/** Answer of an operation on a single descriptor, a bit: it was done. 0: there is none. */
export const ONE_DONE = 1;
/** … and the caller must ring the doorbell. */
export const ONE_DOORBELL = 2;

/** This side moves valid.head. */
export const OWNS_VALID_HEAD = 1;
/** This side moves valid.tail. */
export const OWNS_VALID_TAIL = 2;
/** This side moves inuse.head. */
export const OWNS_INUSE_HEAD = 4;
/** This side moves inuse.tail. */
export const OWNS_INUSE_TAIL = 8;

/** The peer stored an index that is not below count. */
export const VIOLATION_INDEX = 1;
/** The peer stored an owner that is neither north nor south. */
export const VIOLATION_OWNER = 2;
/** A buffer that the peer posted lies outside its memory. */
export const VIOLATION_ADDRESS = 3;
/** The tails of valid and inuse differ. */
export const VIOLATION_TAILS = 4;
/** South accepted an extension that was not offered. */
export const VIOLATION_EXTENSION = 5;
/** A descriptor of a fixed-format queue has the wrong length or place. */
export const VIOLATION_DESCRIPTOR = 6;
/** Number of violation kinds, none included. */
export const VIOLATION_KINDS = 8;

/* ---- iterator ---------------------------------------------------------------------------------- */

/** Address of the endpoint. */
export const ITER_OFF_ENDPOINT = 0;
/** Index that the iterator is bound to. */
export const ITER_OFF_INDEX = 4;
/** Flags, with {@link ITER_DUAL}. */
export const ITER_OFF_FLAGS = 8;
/** Position, {@link ITER_UNPOSITIONED} before the first seek. */
export const ITER_OFF_POSITION = 12;
/** Size of an iterator. */
export const ITER_STATE_SIZE = 16;
/** Internal flag: move valid and inuse together. */
export const ITER_DUAL = 4;
/** Position of an iterator that was never sought. */
export const ITER_UNPOSITIONED = 0xffffffff;

/* ---- burst table: entries of 64 bytes, one cache line each ------------------------------------- */

/** Absolute address of the buffer, 0 when it is outside the guest's memory. */
export const ENTRY_OFF_ADDRESS = 0;
/** Length in bytes: of the payload, or the capacity of a posted buffer. */
export const ENTRY_OFF_LENGTH = 4;
/** `FRAME_…` flags. */
export const ENTRY_OFF_FLAGS = 8;
/** First byte to sum, u16. */
export const ENTRY_OFF_CSUM_START = 12;
/** Where to store the sum, from the first byte to sum, u16. */
export const ENTRY_OFF_CSUM_OFFSET = 14;
/** Segmentation kind, u8. */
export const ENTRY_OFF_GSO_KIND = 16;
/** Payload bytes per segment, u16. */
export const ENTRY_OFF_GSO_SIZE = 18;
/** Length of all headers, u16 (a hint from a guest, never trusted). */
export const ENTRY_OFF_HEADER_LENGTH = 20;
/** Number of fragments, u16; 0 or 1 = one piece at the entry's address. */
export const ENTRY_OFF_FRAGMENTS = 22;
/** Absolute address of the fragment list. */
export const ENTRY_OFF_FRAGMENT_LIST = 24;
/** Ring position of the descriptor. */
export const ENTRY_OFF_POSITION = 28;
/** Private copy of the first 16 bytes of the frame. */
export const ENTRY_OFF_HEAD = 32;
/** Guest-physical address of the buffer, u64. */
export const ENTRY_OFF_GPA = 48;
/** The descriptor's cookie, u64. */
export const ENTRY_OFF_COOKIE = 56;
/** Size of an entry. */
export const ENTRY_SIZE = 64;
/** Bytes of a frame that are copied to {@link ENTRY_OFF_HEAD}. */
export const ENTRY_HEAD_SIZE = 16;

/* ---- pieces: a frame that is scattered over several buffers ------------------------------------ */

/** Piece: absolute address, u32. */
export const PIECE_OFF_ADDRESS = 0;
/** Piece: length in bytes, u32. */
export const PIECE_OFF_LENGTH = 4;
/** Piece: guest-physical address, u64 (0 in private memory). */
export const PIECE_OFF_GPA = 8;
/** Size of a piece. */
export const PIECE_SIZE = 16;

/* ---- segmentation state ------------------------------------------------------------------------ */

/** Frame headers kept: the longest that a superframe may have. */
export const HEADERS_MAX = 512;
/** Most segments of one superframe. */
export const SEGMENTS_MAX = 2048;
/** Address of the superframe's table entry. */
export const SEG_OFF_ENTRY = 0;
/** Number of segments. */
export const SEG_OFF_COUNT = 4;
/** Next segment. */
export const SEG_OFF_NEXT = 8;
/** Length of all headers. */
export const SEG_OFF_HEADER_LENGTH = 12;
/** Payload bytes per segment. */
export const SEG_OFF_SIZE = 16;
/** Offset of the network header. */
export const SEG_OFF_NETWORK = 20;
/** Offset of the transport header. */
export const SEG_OFF_TRANSPORT = 24;
/** Segmentation kind. */
export const SEG_OFF_KIND = 28;
/** 4 or 6. */
export const SEG_OFF_VERSION = 32;
/** Sum of all that does not change in transport and pseudo-header: without lengths, sequence number and flags. */
export const SEG_OFF_TRANSPORT_SUM = 36;
/** Payload bytes of the whole. */
export const SEG_OFF_PAYLOAD = 40;
/** Sum of all that does not change in an IPv4 header: without length and identification. */
export const SEG_OFF_NETWORK_SUM = 44;
/** Address of the next payload byte. */
export const SEG_OFF_AT = 48;
/** Bytes from there to the end of its piece. */
export const SEG_OFF_REST = 52;
/** The piece after that one. */
export const SEG_OFF_PIECE = 56;
/** Private copy of the headers. */
export const SEG_OFF_HEADERS = 64;
/** Size of a segmentation state. */
export const SEG_STATE_SIZE = 576;

/* ---- coalescing: the list of open flows, then one record per frame of a batch ---------------- */

/** Index of the next frame of the same superframe, {@link COALESCE_NONE} in the last. */
export const COALESCE_OFF_NEXT = 0;
/** First frame of a superframe: index of its last frame. */
export const COALESCE_OFF_LAST = 4;
/** First frame of a superframe: number of frames; 0 in the others, and in frames that pass as they are 1. */
export const COALESCE_OFF_FRAMES = 8;
/** First frame of a superframe: payload bytes of all frames. */
export const COALESCE_OFF_TOTAL = 12;
/** Length of all headers; 0 when the frame belongs to no flow that could be told. */
export const COALESCE_OFF_HEADER_LENGTH = 16;
/** Payload bytes of the frame. */
export const COALESCE_OFF_PAYLOAD = 20;
/** Offset of the network header. */
export const COALESCE_OFF_NETWORK = 24;
/** Offset of the transport header. */
export const COALESCE_OFF_TRANSPORT = 28;
/** Segmentation kind. */
export const COALESCE_OFF_KIND = 32;
/** Sequence number. */
export const COALESCE_OFF_SEQUENCE = 36;
/** Identification of an IPv4 packet. */
export const COALESCE_OFF_ID = 40;
/** TCP flags. */
export const COALESCE_OFF_TCP_FLAGS = 44;
/** Hash of the flow. */
export const COALESCE_OFF_HASH = 48;
/** Private copy of the headers; what differs between segments of one send is zero. */
export const COALESCE_OFF_HEADERS = 64;
/** Longest headers of a frame that is merged. */
export const COALESCE_HEADERS_MAX = 192;
/** Size of a record. */
export const COALESCE_RECORD_SIZE = 256;
/** No frame. */
export const COALESCE_NONE = 0xffffffff;
/** Flows that can be open at once; one more closes the oldest. */
export const COALESCE_FLOWS_MAX = 16;
/** Result: number of superframes made. Follows the list of open flows, u32 each. */
export const COALESCE_OFF_SUPERFRAMES = 64;
/** Size of what precedes the records. */
export const COALESCE_OPEN_SIZE = 128;
/** What may be merged: TCP over IPv4. */
export const COALESCE_TCP4 = 1;
/** What may be merged: TCP over IPv6. */
export const COALESCE_TCP6 = 2;
/** What may be merged: flows that use ECN, when congestion was reported (CWR). */
export const COALESCE_ECN = 4;

/** Superframe refused: headers that are not those of the kind, or do not fit. */
export const SEG_BAD_HEADERS = 1;
/** Superframe refused: segment size 0, no payload, or more than {@link SEGMENTS_MAX} segments. */
export const SEG_BAD_SIZE = 2;
/** Superframe refused: the checksum positions contradict the headers. */
export const SEG_BAD_CHECKSUM = 3;

/** Frame flag: the checksum is partial (csum start and offset are set). */
export const FRAME_NEEDS_CSUM = 1;
/** Frame flag: a superframe (gso kind and size are set). */
export const FRAME_GSO = 2;
/** Frame flag: the TCP flow uses ECN. */
export const FRAME_ECN = 4;
/** Frame flag: the checksum has been verified or completed here. */
export const FRAME_CSUM_VALID = 8;
/** Result flag: did not fit into the posted buffer; dropped. */
export const FRAME_TOO_LONG = 0x10000;

/** Result flag: the scatter-gather descriptor contradicts itself, or is too short or too long. */
export const FRAME_BAD_DESCRIPTOR = 0x20000;
/** Result flag: a piece, or the descriptor itself, lies outside the guest's memory. */
export const FRAME_BAD_ADDRESS = 0x40000;
/** Result flag: checksum or segmentation data that contradicts itself, or was not negotiated. */
export const FRAME_BAD_OFFLOAD = 0x80000;
/** Result flag: the entry's cookie is that of the scatter-gather descriptor. */
export const FRAME_COOKIE_READ = 0x100000;

/** Segmentation kind: none. */
export const GSO_NONE = 0;
/** Segmentation kind: TCP over IPv4. */
export const GSO_TCP4 = 1;
/** Segmentation kind: TCP over IPv6. */
export const GSO_TCP6 = 2;
/** Segmentation kind: UDP datagrams. */
export const GSO_UDP_L4 = 3;

/** Burst flag: write the entry's length to the descriptor. */
export const BURST_LENGTH = 1;
/** Burst flag: write the entry's guest-physical address to the descriptor. */
export const BURST_POINTER = 2;
/** Burst flag: write the entry's cookie to the descriptor. */
export const BURST_COOKIE = 4;
/** Burst flag: set north's private mark. */
export const BURST_SET_VALID = 8;
/** Burst flag: clear north's private mark. */
export const BURST_CLEAR_VALID = 16;
/** Burst flag: leave the owner alone. */
export const BURST_NOFLIP = 32;
/** Burst flag: signal the peer afterwards. */
export const BURST_SIGNAL = 64;
/** Burst flag: translate and check buffer addresses. */
export const BURST_TRANSLATE = 128;
/** Burst flag: copy the first bytes of every buffer to the entry. */
export const BURST_HEAD = 256;
/** Burst flag: a buffer outside the guest's memory breaks the queue (without it: address 0). */
export const BURST_STRICT = 512;

/* ---- wake-up results (`docs/abi/shm-signal.md` 2.4, inverted) ---------------------------------- */

/** Nothing more to do. */
export const WAKEUP_DONE = 0;
/** Run the notifier, then call `wakeupNext`. */
export const WAKEUP_RUN = 1;
/** The budget is spent: schedule another wakeup. */
export const WAKEUP_BUDGET = 2;

/** What to look at after `pending = 0`, or when enabling: nothing. */
export const RECHECK_NONE = 0;
/** … the descriptor at inuse.head (a consumer waits for payload). */
export const RECHECK_INUSE_HEAD = 1;
/** … the descriptor at inuse.tail (a producer waits for room). */
export const RECHECK_INUSE_TAIL = 2;
/** … the descriptor at valid.head (north waits for completions). */
export const RECHECK_VALID_HEAD = 3;

/* ---- exported state ---------------------------------------------------------------------------- */

/** Magic of an exported endpoint. */
export const STATE_MAGIC = 0x71627673;
/** Version of the exported format. */
export const STATE_VERSION = 2;
/** Offset of the endpoint image in an exported state (magic, version, length, 0 precede it). */
export const STATE_OFF_IMAGE = 16;
/** Size of an exported endpoint. */
export const STATE_SIZE = 336;

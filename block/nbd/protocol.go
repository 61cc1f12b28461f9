package nbd

// Numbers of the protocol, all big-endian on the wire. Source: doc/proto.md of
// NetworkBlockDevice/nbd, whose names are these in capitals.

const (
	magicServer      uint64 = 0x4e42444d41474943 // NBDMAGIC
	magicOption      uint64 = 0x49484156454f5054 // IHAVEOPT
	magicOptionReply uint64 = 0x0003e889045565a9
	magicRequest     uint32 = 0x25609513
	magicSimpleReply uint32 = 0x67446698
	magicChunk       uint32 = 0x668e33ef
)

// Flags of the handshake; the client's have the same bits.
const (
	handshakeFixedNewstyle = 1 << iota
	handshakeNoZeroes

	handshakeFlags = handshakeFixedNewstyle | handshakeNoZeroes
)

// Options.
const (
	optionExportName       uint32 = 1
	optionAbort            uint32 = 2
	optionList             uint32 = 3
	optionStartTLS         uint32 = 5
	optionInfo             uint32 = 6
	optionGo               uint32 = 7
	optionStructuredReply  uint32 = 8
	optionListMetaContexts uint32 = 9
	optionSetMetaContexts  uint32 = 10
)

// Replies to options.
const (
	replyAck         uint32 = 1
	replyServer      uint32 = 2
	replyInfo        uint32 = 3
	replyMetaContext uint32 = 4

	replyError            uint32 = 1 << 31
	replyErrorUnsupported        = replyError + 1
	replyErrorPolicy             = replyError + 2
	replyErrorInvalid            = replyError + 3
	replyErrorTLSRequired        = replyError + 5
	replyErrorUnknown            = replyError + 6
	replyErrorTooBig             = replyError + 9
)

// Kinds of information about an export.
const (
	infoExport      uint16 = 0
	infoName        uint16 = 1
	infoDescription uint16 = 2
	infoBlockSize   uint16 = 3
)

// Transmission flags, which say what an export can do.
const (
	transmitHasFlags    = 1 << 0
	transmitReadOnly    = 1 << 1
	transmitFlush       = 1 << 2
	transmitFUA         = 1 << 3
	transmitTrim        = 1 << 5
	transmitWriteZeroes = 1 << 6
	transmitDF          = 1 << 7
	transmitMultiConn   = 1 << 8
	transmitCache       = 1 << 10
	transmitFastZero    = 1 << 11
)

type command uint16

const (
	commandRead        command = 0
	commandWrite       command = 1
	commandDisconnect  command = 2
	commandFlush       command = 3
	commandTrim        command = 4
	commandCache       command = 5
	commandWriteZeroes command = 6
	commandBlockStatus command = 7

	commands = 8
)

// Flags of commands.
const (
	flagFUA uint16 = 1 << iota
	flagNoHole
	flagDF
	flagReqOne
	flagFastZero
)

// Chunks of structured replies.
const (
	chunkDone uint16 = 1 // flag of the last one

	chunkOffsetData  uint16 = 1
	chunkOffsetHole  uint16 = 2
	chunkBlockStatus uint16 = 5
	chunkError       uint16 = 1<<15 + 1
	chunkNone        uint16 = 0
)

// Flags of extents in the metadata context base:allocation.
const (
	stateHole uint32 = 1 << iota
	stateZero
)

const (
	metaAllocation   = "base:allocation"
	metaAllocationID = 1
)

// Sizes of what is sent, in bytes.
const (
	requestBytes     = 28
	simpleReplyBytes = 16
	chunkHeadBytes   = 20
)

// Limits. The longest payload is what the protocol asks servers to accept.
const (
	maxPayloadBytes = 32 << 20
	maxNameBytes    = 4096
	maxOptionBytes  = 64 << 10
	maxOptions      = 4096
	maxQueries      = 64

	// What is longer than allowed is read and dropped, up to these lengths: then
	// the client is told. Above, it is disconnected.
	maxDroppedOptionBytes  = 1 << 20
	maxDroppedPayloadBytes = 64 << 20
)

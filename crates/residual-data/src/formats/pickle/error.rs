use std::io;

/// Why a pickle cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PickleError {
    /// The input ends before the pickle does.
    #[error("the pickle ends early")]
    EndsEarly,
    /// The pickle is longer than 1 GiB.
    #[error("the pickle is longer than 1 GiB")]
    TooLong,
    /// A line of protocol 0 is longer than 4096 bytes.
    #[error("the pickle has a line of more than 4096 bytes; write it with protocol 2 or later")]
    LongLine,
    /// The pickle has more values than a file of its size can need, as damaged or hostile files do.
    #[error("the pickle has too many values")]
    TooManyValues,
    /// No protocol has this opcode.
    #[error("the pickle has the unknown opcode {opcode:#04x} at byte {at}")]
    UnknownOpcode {
        /// The opcode.
        opcode: u8,
        /// The opcode's position in the pickle.
        at: u64,
    },
    /// An operation needs more values than there are on the stack.
    #[error("the pickle uses a value that is not there")]
    NoValue,
    /// An operation refers to a value that was not stored.
    #[error("the pickle uses a value before it is stored")]
    NotStored,
    /// The module or the name of a class is not a short text.
    #[error("the pickle names a class by something that is not text")]
    ClassName,
    /// A line should be a number.
    #[error("the pickle has an invalid number")]
    Number,
    /// The input cannot be read.
    #[error("the pickle cannot be read: {0}")]
    Io(#[source] io::Error),
}

use crate::Usage;
use std::fmt::Display;

/// The value of a flag that takes a list in a sweep and one value elsewhere.
pub(crate) fn one<T: Clone + Display>(flag: &str, values: Option<&[T]>) -> Result<Option<T>, Usage> {
    match values {
        None | Some([]) => Ok(None),
        Some([value]) => Ok(Some(value.clone())),
        Some(values) => {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            let values = values.join(",");
            Err(Usage(format!("{flag} takes one value here, not {values}; `residual sweep` takes several")))
        }
    }
}

//! Serialisation of numbers that may be NaN or infinite, for `#[serde(with = "numbers")]`.
//!
//! JSON cannot represent these values, so they are written as the strings `"NaN"`, `"inf"` and `"-inf"`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::Value;

/// A number, or nested lists of numbers.
pub(crate) trait Numbers: Sized {
    fn to_json(&self) -> Value;
    fn from_json(json: &Value) -> Option<Self>;
}

impl Numbers for f64 {
    fn to_json(&self) -> Value {
        if self.is_finite() { Value::from(*self) } else { Value::from(self.to_string()) }
    }

    fn from_json(json: &Value) -> Option<Self> {
        json.as_f64().or_else(|| json.as_str()?.parse().ok())
    }
}

impl<T: Numbers> Numbers for Vec<T> {
    fn to_json(&self) -> Value {
        self.iter().map(T::to_json).collect()
    }

    fn from_json(json: &Value) -> Option<Self> {
        json.as_array()?.iter().map(T::from_json).collect()
    }
}

pub(crate) fn serialize<T: Numbers, S: Serializer>(numbers: &T, serializer: S) -> Result<S::Ok, S::Error> {
    numbers.to_json().serialize(serializer)
}

pub(crate) fn deserialize<'de, T: Numbers, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::from_json(&Value::deserialize(deserializer)?)
        .ok_or_else(|| D::Error::custom("expected a number or nested lists of numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_exactly() {
        let numbers = vec![vec![0.1 + 0.2, 1e-300, -0.0], vec![f64::INFINITY, f64::NEG_INFINITY, f64::NAN], vec![]];
        let text = serde_json::to_string(&numbers.to_json()).unwrap();
        let back = Vec::<Vec<f64>>::from_json(&serde_json::from_str(&text).unwrap()).unwrap();
        let bits = |rows: &[Vec<f64>]| rows.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(&numbers));
        assert!(f64::from_json(&Value::from("many")).is_none());
    }
}

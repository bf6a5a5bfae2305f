use std::time::Duration;

/// Parses `90s`, `10m`, `2h`, or a number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let seconds = number.parse::<f64>().ok().map(|number| match unit {
        "m" => 60.0 * number,
        "h" => 3600.0 * number,
        _ => number,
    });
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| format!("invalid time `{text}`; expected a number and s, m or h, such as 10m"))
}

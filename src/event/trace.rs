//! The W3C Trace Context of an event: which span of which trace it was made in.
//!
//! *Source*: W3C Trace Context, section 3.2 (`traceparent`) and 4 (how versions that are not known yet are read).

use super::NameError;
use std::sync::Arc;

/// Bytes of a `traceparent` of version 00.
const BYTES: usize = 55;
/// The first of the flags: the trace is recorded.
const SAMPLED: u8 = 1;

/// Checks a `traceparent`. One of a later version becomes one of version 00, as the specification has it, so that what is
/// stored has one form: `00-`, 32 digits of the trace, 16 of the span, 2 of flags, in lower case.
pub fn check_traceparent(text: &str) -> Result<Arc<str>, NameError> {
    let is_digits = |digits: &str| digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |digits: &str| is_digits(digits) && digits.bytes().any(|b| b != b'0');
    let (Some(known), Some(rest)) = (text.get(..BYTES), text.get(BYTES..)) else {
        return Err(NameError::TraceParent);
    };
    let fields = (known.get(..2), known.get(3..35), known.get(36..52), known.get(53..));
    let (Some(version), Some(trace), Some(span), Some(flags)) = fields else {
        return Err(NameError::TraceParent);
    };
    let is_separated = [2, 35, 52].iter().all(|at| known.as_bytes()[*at] == b'-');
    let is_read = is_separated && is_digits(version) && is_id(trace) && is_id(span) && is_digits(flags);
    match version {
        "00" if is_read && rest.is_empty() => Ok(Arc::from(text)),
        "00" | "ff" => Err(NameError::TraceParent),
        // Of what it may say beyond that, nothing is known.
        _ if is_read && (rest.is_empty() || rest.starts_with('-')) => {
            let flags = u8::from_str_radix(flags, 16).map_err(|_| NameError::TraceParent)? & SAMPLED;
            Ok(Arc::from(format!("00-{trace}-{span}-{flags:02x}")))
        }
        _ => Err(NameError::TraceParent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

    #[test]
    fn what_is_kept_has_one_form() {
        for flags in ["00", "01", "02", "ff"] {
            let text = format!("00-{SPAN}-{flags}");
            assert_eq!(check_traceparent(&text).as_deref(), Ok(&*text));
        }
        for (later, kept) in [
            (format!("01-{SPAN}-00"), "00"),
            (format!("cc-{SPAN}-ff"), "01"),
            (format!("fe-{SPAN}-03-what-may-come"), "01"),
            (format!("01-{SPAN}-02-"), "00"),
        ] {
            assert_eq!(check_traceparent(&later).as_deref(), Ok(&*format!("00-{SPAN}-{kept}")), "{later}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let [trace, span] = ["0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"];
        for bad in [
            String::new(),
            "00".to_owned(),
            format!("00-{SPAN}"),
            format!("00-{SPAN}-1"),
            format!("00-{SPAN}-01-"),
            format!("00-{SPAN}-01-more"),
            format!("00-{SPAN}-0g"),
            format!("00-{SPAN}-01 "),
            format!(" 00-{SPAN}-01"),
            format!("ff-{SPAN}-01"),
            format!("0G-{SPAN}-01"),
            format!("01-{SPAN}-01more"),
            format!("00-{SPAN}-01").to_uppercase(),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("01-{}-{span}-01", "0".repeat(32)),
            format!("00_{trace}-{span}-01"),
            format!("00-{trace}_{span}-01"),
            format!("00-{trace}-{span}_01"),
            // Not at the boundary of a character.
            format!("00-{trace}-{span}-0\u{e4}"),
            format!("00-{}\u{e4}{}-{span}-01", &trace[..31], &trace[32..]),
            format!("0\u{e4}{trace}-{span}-01"),
            "\u{1f600}".repeat(20),
        ] {
            assert_eq!(check_traceparent(&bad), Err(NameError::TraceParent), "{bad:?}");
        }
    }
}

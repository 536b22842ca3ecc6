//! The closed sets that labels come from: however long a server runs, there are no more series than these allow.

/// A closed set of label values.
pub trait Label: Copy + Send + Sync + 'static {
    /// The label.
    const NAME: &'static str;
    /// Its values, by index.
    const VALUES: &'static [&'static str];

    /// Which of the values it is.
    fn index(self) -> usize;
}

macro_rules! label {
    ($(#[doc = $doc:literal])+ $name:ident = $label:literal { $($(#[doc = $help:literal])+ $variant:ident = $value:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $help])+ $variant,)+
        }

        impl Label for $name {
            const NAME: &'static str = $label;
            const VALUES: &'static [&'static str] = &[$($value),+];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// Where what a reader is given comes from.
    Source = "source" {
        /// From memory.
        Window = "window",
        /// From the file.
        Table = "table",
    }
}

label! {
    /// Whether an event stream is up to date.
    ReaderState = "state" {
        /// Served from memory, or waiting for the next event.
        Live = "live",
        /// Served from the file.
        CatchUp = "catch_up",
    }
}

label! {
    /// Why events are trimmed.
    Cause = "cause" {
        /// By the retention that is set.
        Retention = "retention",
        /// By someone who asked for it.
        Request = "request",
    }
}

label! {
    /// Of so many percent of the readers, at most; 100 is the worst of all.
    Percentile = "percentile" {
        /// Half of them.
        P50 = "50",
        /// Nine of ten.
        P90 = "90",
        /// All but one of a hundred.
        P99 = "99",
        /// All of them.
        P100 = "100",
    }
}

label! {
    /// Why an event stream is ended, as its notice says it.
    Notice = "reason" {
        /// The server is stopping.
        Drain = "drain",
        /// The log has failed, or could not be read.
        Unavailable = "unavailable",
        /// It has lasted long enough.
        Age = "age",
        /// There is no place for it.
        Overloaded = "overloaded",
        /// Its client has asked too often.
        RateLimited = "rate_limited",
        /// It came without a credential that reads.
        Unauthorized = "unauthorized",
        /// Its credential has ended.
        Expired = "expired",
    }
}

impl Notice {
    /// The notice with this reason.
    pub fn of(reason: &str) -> Option<Self> {
        let all = [
            Self::Drain,
            Self::Unavailable,
            Self::Age,
            Self::Overloaded,
            Self::RateLimited,
            Self::Unauthorized,
            Self::Expired,
        ];
        all.into_iter().find(|notice| Self::VALUES[notice.index()] == reason)
    }
}

impl Percentile {
    /// Its place in so many sorted values, of which there is at least one: the smallest that so many percent do not exceed.
    pub fn rank(self, count: usize) -> usize {
        let percent = match self {
            Self::P50 => 50,
            Self::P90 => 90,
            Self::P99 => 99,
            Self::P100 => 100,
        };
        (count * percent).div_ceil(100).max(1) - 1
    }

    /// All of them.
    pub const ALL: [Self; 4] = [Self::P50, Self::P90, Self::P99, Self::P100];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_are_there() {
        let ranks = |count| Percentile::ALL.map(|percentile| percentile.rank(count));
        assert_eq!(ranks(1), [0, 0, 0, 0]);
        assert_eq!(ranks(2), [0, 1, 1, 1]);
        assert_eq!(ranks(10), [4, 8, 9, 9]);
        assert_eq!(ranks(1_000), [499, 899, 989, 999]);
    }

    #[test]
    fn every_reason_is_a_notice() {
        for reason in Notice::VALUES {
            let notice = Notice::of(reason).unwrap();
            assert_eq!(Notice::VALUES[notice.index()], *reason);
        }
        assert_eq!(Notice::of("other"), None);
    }
}

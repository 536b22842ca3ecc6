//! Settings: one table for flags, `EVERTAIL_*` variables, `.env` and their documentation; resolved into types at once.
//!
//! Layer L0. Knows no I/O: the caller reads flags, environment and files.

mod resolve;
mod resolver;
mod table;
mod values;

pub use resolve::{
    AllowedOrigin, AuthConfig, Config, ConfigError, ConfigErrors, JwtKeys, LogFormat, Raw, resolve,
};
pub use table::{CLIENT_CA_FILE, CLIENT_SETTINGS, CLIENT_TOKEN, CLIENT_URL, SETTINGS, Setting};
pub use values::{age, bytes};

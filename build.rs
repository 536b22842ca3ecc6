//! Makes cargo rebuild when a migration is added: `sqlx::migrate!` alone misses a new file.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}

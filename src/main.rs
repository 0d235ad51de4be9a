//! The program: hands over to `firn::cli`. Not for: anything else.

fn main() {}

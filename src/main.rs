//! The program: hands over to `firn::cli`. Not for: anything else.

use std::process::ExitCode;

fn main() -> ExitCode {
    firn::cli::run()
}

//! Does the program say what it should, and end with the right code? Not for: whether data survives (other folders).

mod man;
mod refusals;
mod upkeep;
mod words;

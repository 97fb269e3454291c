//! Seeds that once found something, each by what it was.

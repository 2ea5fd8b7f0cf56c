"""Programs of seven languages: their compilers, and what comes out of them."""

"""What the store costs, what its layout was chosen by, and what the duplicate gates take. `make bench-store`"""

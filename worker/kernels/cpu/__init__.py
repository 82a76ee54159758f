"""Operations for CPUs: what is faster there than plain torch."""

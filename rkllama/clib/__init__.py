"""What the bindings of the vendor's C libraries share: declarations as data, ctypes types, ELF, finding."""

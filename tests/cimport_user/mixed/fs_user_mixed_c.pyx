include "mixed.pxi"

# The capsule with the table of functions that <fastsync/fastsync.h> imports.
table: object
__test__: dict[str, str]

from fastsync._runner import main

# The program runs in this module's namespace, which `main` empties first: nothing may follow.
main()

from fastsync._run.runner import main

if __name__ == "__main__":
    # The program runs in this namespace, which `main` empties first: nothing may follow.
    main()

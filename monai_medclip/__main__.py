"""Entry of `python -m monai_medclip`."""

from monai_medclip.cli import main

if __name__ == "__main__":
    main()

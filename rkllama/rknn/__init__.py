"""librknnrt: the vendor's library that runs image encoders on the NPU, and their files."""

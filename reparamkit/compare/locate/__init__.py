"""Where two networks begin to differ. Only asked once they do, and bounded in time and memory."""

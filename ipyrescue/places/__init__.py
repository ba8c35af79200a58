"""Where ipyrescue works: containers, disks, logins; what may go wrong there, and what to type. Never unpickles."""

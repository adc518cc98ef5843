-- A contender in the measurement of the tax on writes: a hand-written trigger that deletes the id of each inserted or updated row
-- from Redis, before the commit. It is not exact: a reader may store the old value again before the commit. It needs plpython3u,
-- and the tables of tables.sql in the current schema. Each session keeps its connection, and waits for the answer. sides.rs
-- replaces {socket} with the path of the socket of Redis.

CREATE EXTENSION plpython3u;

CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpython3u AS $$
if 'redis' not in GD:
    import socket
    GD['redis'] = socket.socket(socket.AF_UNIX)
    GD['redis'].connect(TD['args'][0])
key = b'%d' % TD['new']['id']
GD['redis'].sendall(b'*2\r\n$3\r\nDEL\r\n$%d\r\n%s\r\n' % (len(key), key))
if not GD['redis'].recv(64).startswith(b':'):
    plpy.error('Redis does not delete')
$$;

CREATE TRIGGER forget AFTER INSERT OR UPDATE ON account FOR EACH ROW EXECUTE FUNCTION forget('{socket}');
CREATE TRIGGER forget AFTER INSERT OR UPDATE ON entry FOR EACH ROW EXECUTE FUNCTION forget('{socket}');

-- What `pugmark supabase setup` asks a project: which migrations it has, whether it records its changes for other stations,
-- and what time it is there. A running older version never calls it.

-- As its owner, because neither record of migrations is anybody else's to read: our own, and the Supabase CLI's.
create function public.sync_project_state() returns jsonb
language plpgsql stable security definer set search_path = ''
as $$
declare
  recorded text;
  found jsonb;
  versions jsonb := '{}';
begin
  -- The CLI's may hold migrations of the project's owner, too.
  foreach recorded in array array['pugmark_migrations.applied', 'supabase_migrations.schema_migrations'] loop
    if to_regclass(recorded) is not null and has_table_privilege(recorded, 'select') then
      execute format('select jsonb_agg(version order by version) from %s', recorded) into found;
    end if;
    versions := versions || jsonb_build_object(split_part(recorded, '_', 1), coalesce(found, '[]'));
    found := null;
  end loop;
  return jsonb_build_object(
    'versions', versions,
    'is_feed', (select is_feed from sync.state),
    'now', clock_timestamp()
  );
end
$$;

revoke execute on function public.sync_project_state() from public, anon, authenticated;
grant execute on function public.sync_project_state() to service_role;
